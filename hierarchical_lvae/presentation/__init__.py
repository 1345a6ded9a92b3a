"""How runs are presented: figures, tables and a report page."""
