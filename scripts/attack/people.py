"""A label page, and somebody who votes there."""

import http.client, json

LABELS = """preflow: 1
name: p
sources:
  pairs: { path: pairs.jsonl, as: pairs }
stages:
  labels:
    kind: collect_labels
    pairs: pairs
    labeler: { people: { votes: votes } }
"""



def pairs(space, count):
    rows = ({"prompt": f"q{i}", "response_a": f"a{i}", "response_b": f"b{i}"} for i in range(count))
    space.write("pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def serve(space):
    """The server, and an annotator who has opened their link."""
    server = space.start("label", "serve", "p.yaml", "labels", "--json", "--port", "0",
                         "--share", "ann")
    return server, Client(json.loads(server.stdout.readline()))


class Client:
    """An annotator's browser, as far as HTTP goes."""

    def __init__(self, ready):
        self.ready, self.base = ready, ready["base"]
        self.http = http.client.HTTPConnection(self.base.split("//")[1], timeout=10)
        self.http.request("GET", "/in/" + ready["annotators"][0]["url"].split("/in/")[1])
        answer = self.http.getresponse()
        answer.read()
        self.cookie = answer.getheader("set-cookie").split(";")[0]
        self.pairs = self.ask("GET", "/api/progress")[1]["pairs"]
        self.hand = []

    def ask(self, method, path, body=None):
        head = {"cookie": self.cookie, "origin": self.base, "content-type": "application/json"}
        self.http.request(method, path, json.dumps(body) if body else None, head)
        answer = self.http.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def vote(self, name):
        """Id of a vote that was acknowledged; `None`: nothing is left, or the server is gone."""
        try:
            if not self.hand:
                body = {"as": "ann", "count": 8, "pairs": self.pairs}
                status, answer = self.ask("POST", "/api/next", body)
                self.hand = answer["order"] if status == 200 else []
                if not self.hand:
                    return None
            question = self.hand.pop(0)
            vote = {"id": name, "pairs": self.pairs, "pair": question[0], "repeat": question[1],
                    "pick": "left", "left": "a", "ms": 1200, "note": ""}
            body = {"as": "ann", "count": 4, "vote": vote}
            status, answer = self.ask("POST", "/api/vote", body)
            return answer["vote"]["id"] if status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
