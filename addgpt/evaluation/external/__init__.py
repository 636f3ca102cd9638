"""External models on the same problems: asked in text, what they answer kept and judged.

settings.py     what a person names, `hf:PATH`, `api:ADDRESS` or `answers:FILE`, and its folder
questions.py    a task's evaluation set as prompts; the shots before them
replies.py      what came back, kept in answers.jsonl as it comes
reading.py      which number of a reply is its answer; digit match and length error
grading.py      replies as outcomes, cell by cell
huggingface.py, openai_client.py, made_elsewhere.py     where replies come from
"""
