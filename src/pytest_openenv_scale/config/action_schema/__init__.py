"""An action made of the JSON schema that a server publishes at `/schema`: the smallest that the schema admits."""
