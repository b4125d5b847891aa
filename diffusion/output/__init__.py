"""What is made of drawings: stills, films, and folders of very many pictures."""
