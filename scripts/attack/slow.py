"""A thousand slow clients of the label page, while somebody labels."""

import resource, socket

import people


def run(attack):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    space = attack.space(people.LABELS)
    people.pairs(space, 3000)
    server, client = people.serve(space)
    host, port = client.base.split("//")[1].split(":")
    crowd = []
    voted = 0
    try:
        for turn in range(attack.count(4)):
            for number in range(1000):
                one = socket.create_connection((host, int(port)), timeout=5)
                one.sendall([b"", b"GET / HTTP/1.1\r\nhost: x", b"POST /api/vote HTTP/1.1\r\n"][number % 3])
                crowd.append(one)
                attack.tries += 1
                if number % 100 == 0:
                    vote = client.vote(f"{turn}-{number}")
                    if vote is None:
                        attack.fault("an annotator is kept from voting")
                        client = people.Client(client.ready)
                    voted += vote is not None
            people.Client(client.ready)
            for one in crowd[:-500]:
                one.close()
            crowd = crowd[-500:]
    except OSError as error:
        attack.fault(f"nobody gets in any more: {error}")
    finally:
        server.terminate()
        server.communicate(timeout=20)
        for one in crowd:
            one.close()
    attack.note = f"{voted} votes meanwhile"
