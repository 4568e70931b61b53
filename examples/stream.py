"""Print tokens as a model makes them, and leave early."""

from livepeer.client import Gateway

gw = Gateway()
messages = [{"role": "user", "content": "Tell me about trickle."}]

with gw.stream("llm-chat", input={"messages": messages, "max_tokens": 50}) as stream:
    for count, event in enumerate(stream):
        print(event.data, end="", flush=True)
        if count == 9:
            break  # the worker notices, and stops working
print()
