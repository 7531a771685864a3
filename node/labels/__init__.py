"""Labels: what pathology and radiologists said of a breast, and boxes around lesions; by revision, never overwritten.

`values` says what a label can be, `store` reads and writes them, `table`, `matching` and `importing` bring in a file,
`rule` says what a breast without pathology counts as.
"""
