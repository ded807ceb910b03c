"""Files and their transfers: what everybody may ask about what they may see, and whom administrators let see it."""
