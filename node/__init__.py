"""The node: what it received, what it ran, what it sent. No model code here; see ARCHITECTURE.md."""
