"""What a compile found out: report.json for machines, tables for people."""
