"""The engine: one loop that schedules tokens, runs the model and samples.

Block manager and scheduler import no torch; the model lives in ``drakkar_workers.serve.model``.
"""
