"""Serve a capability: `python examples/runner.py`, and anyone on the network can run "sentiment"."""

from livepeer.runner import Pipeline, serve


class Sentiment(Pipeline):
    """Tell the mood of a text."""

    def setup(self) -> None:
        self.good = {"good", "great", "love", "happy"}  # a model would be loaded here
        self.bad = {"bad", "awful", "hate", "sad"}

    def run(self, text: str) -> dict[str, str | int]:
        words = set(text.lower().split())
        score = len(words & self.good) - len(words & self.bad)
        return {"label": "positive" if score >= 0 else "negative", "score": score}


if __name__ == "__main__":
    serve(Sentiment(), port=0)
