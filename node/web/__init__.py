"""The pages: a work list, a page a study, deliveries. Rendered here, read-only apart from retry."""
