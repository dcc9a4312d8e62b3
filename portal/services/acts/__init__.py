"""Acts: whatever staff, customers, commerce or the command do to a license, one module each."""
