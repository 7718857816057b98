"""What a person sees: charts, tables, digits and the dashboard, drawn with rich."""
