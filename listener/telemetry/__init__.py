"""What this process tells those who watch it: numbers and spans, and the exporters that carry them."""
