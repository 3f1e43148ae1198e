"""The backend RayStore: actors of Ray hold the samples; with Ray Direct Transport, the process that put them does."""
