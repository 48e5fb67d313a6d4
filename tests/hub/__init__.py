"""A stand-in of the Hugging Face Hub, for the real huggingface_hub to talk to."""

from .server import TOKEN, Answer, Asked, Hub, HubError, Repo, Routes, hub, json_answer, running_hub

__all__ = ["TOKEN", "Answer", "Asked", "Hub", "HubError", "Repo", "Routes", "hub", "json_answer", "running_hub"]
