"""The pages: a work list, a page a study, deliveries, and those of learning. Rendered here; what changes is a form."""
