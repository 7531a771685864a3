"""The DIMSE services that the listener offers, one module each; `services` lists them."""
