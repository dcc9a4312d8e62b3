"""Rules over plain values: no database, no framework, no clock of their own."""
