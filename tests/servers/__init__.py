"""The servers that only the tests need, beside those of harvest.demo.servers."""
