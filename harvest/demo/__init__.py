"""The demonstration lab: sample files, and the servers that stand in for instruments and stores."""
