"""Beyond one model, exact, on one volume: faster arithmetic, reading ahead, ensembles, draws at test time."""
