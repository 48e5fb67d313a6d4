"""A stand-in of the Hugging Face Hub, for the real huggingface_hub to talk to."""

from .server import TOKEN, Answer, Hub, HubError, Repo, Request, Routes, hub, json_answer, running_hub

__all__ = ["TOKEN", "Answer", "Hub", "HubError", "Repo", "Request", "Routes", "hub", "json_answer", "running_hub"]
