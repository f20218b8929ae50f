"""How the ranks share a model: the mesh, and what each of its dimensions does to the model."""
