"""What every report says, as values: computed once, shown by text, Markdown and HTML."""
