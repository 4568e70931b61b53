"""Call a capability and print its result."""

from livepeer.client import CapabilityError, Gateway

gw = Gateway()  # LIVEPEER_ORCH_URL says where; `livepeer dev` starts a network and prints it

print(gw.run("text-reverse", input={"text": "hello"}))

try:
    gw.run("text-reverse", input={"txt": "hello"})
except CapabilityError as error:
    print(f"{error.status}: {error.message}")
