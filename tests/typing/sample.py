"""The sample of the design, which has to type-check under mypy strict as it stands."""

from livepeer.client import Gateway

TOKEN = ""


def sync_verbs() -> None:
    gw = Gateway(token=TOKEN)
    result = gw.run("sentiment", input={"text": "hello"}, model="distilbert-base")
    print(result)

    for event in gw.stream("llm-chat", input={"messages": [...]}, model="qwen-2.5-7b"):
        print(event.data)
    with gw.stream("llm-chat", input=...) as stream:
        for event in stream:
            if event.event == "done":
                break


async def live() -> None:
    gw = Gateway()
    async with gw.live("live-video-to-video", model="noop") as session:
        media_in, media_out = session.publish(fps=30), session.subscribe()
        await session.control.write({"prompt": "a cat"})
        async for event in session.events():
            ...
    print(media_in, media_out, event)


async def twins() -> None:
    gw = Gateway()
    number: int = gw.run("count", output_type=int)
    same: int = await gw.run_async("count", output_type=int)
    async with await gw.stream_async("llm-chat") as stream:
        async for event in stream:
            print(event.data, number, same)
    async for event in gw.stream_async("llm-chat"):
        print(event.json())
