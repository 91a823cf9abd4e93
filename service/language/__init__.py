"""What reads prompts and writes answers: the language model of this process, or servers elsewhere."""
