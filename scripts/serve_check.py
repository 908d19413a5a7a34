"""Asks a model that `preflow serve` serves as others do: with the Python client of OpenAI, and with lm-eval on small
tasks made here. Makes its own environment below target/. Called by `make serve-check`; prints what each of them got.
"""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "target/serve-check"
PACKAGES = ["openai", "lm-eval[api]", "transformers"]
KEY = "only-this-script-knows-it"
THINGS = ["bike", "lamp", "door", "roof", "table", "fence"]


def variables(folder):
    return {**os.environ, "XDG_STATE_HOME": str(folder / ".state"), "HOME": str(folder), "NO_COLOR": "1",
            "PREFLOW_API_KEY": KEY, "OPENAI_API_KEY": KEY, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def preflow(folder, *words):
    program = os.environ.get("PREFLOW", str(ROOT / "target/release/preflow"))
    place = folder / "w" if (folder / "w").exists() else folder
    return [program, *words], {"cwd": place, "env": variables(folder), "text": True}


def said(folder, *words):
    command, options = preflow(folder, *words)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout


def answers(folder, prompts):
    """What `preflow sample` answers."""
    asked = [word for prompt in prompts for word in ("-p", prompt)]
    lines = said(folder, "sample", "sft", "--temperature", "0", "--json", *asked).splitlines()
    return [json.loads(line)["answer"] for line in lines]


def with_client(url, prompts, expected):
    import openai

    client = openai.OpenAI(base_url=url)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model

    def turns(prompt):
        return [{"role": "user", "content": prompt}]

    for prompt, answer in zip(prompts, expected):
        chat = client.chat.completions.create(model=model, messages=turns(prompt), temperature=0)
        assert chat.choices[0].message.content.strip() == answer, (chat, answer)
        assert chat.choices[0].finish_reason == "stop" and chat.usage.completion_tokens > 1
    print(f"openai: {len(prompts)} answers are those of `preflow sample`")

    stream = client.chat.completions.create(
        model=model, messages=turns(prompts[0]), temperature=1, seed=7, n=3, stream=True,
        stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)
    texts, usage = {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    again = client.chat.completions.create(model=model, messages=turns(prompts[0]), temperature=1, seed=7, n=3)
    assert [choice.message.content for choice in again.choices] == [texts[i] for i in range(3)]
    assert usage == again.usage, (usage, again.usage)
    print(f"openai: a stream of 3 answers, {usage.completion_tokens} tokens, equal to what is no stream")

    echo = client.completions.create(model=model, prompt=["to fix a", "the lamp needs"], echo=True, max_tokens=0,
                                     logprobs=2)
    for choice in echo.choices:
        logprobs = choice.logprobs
        assert logprobs.token_logprobs[0] is None and all(x <= 0 for x in logprobs.token_logprobs[1:])
        assert len(logprobs.tokens) == len(logprobs.text_offset) == len(logprobs.top_logprobs)
    print("openai: an echo says how likely", sum(len(choice.logprobs.tokens) for choice in echo.choices), "tokens are")

    async def many():
        async with openai.AsyncOpenAI(base_url=url) as client:
            asked = [client.chat.completions.create(model=model, messages=turns(prompt), temperature=0)
                     for prompt in prompts * 5]
            return [chat.choices[0].message.content.strip() for chat in await asyncio.gather(*asked)]

    assert asyncio.run(many()) == expected * 5
    print(f"openai: {len(prompts) * 5} requests at once")

    for error, change in [
        (openai.NotFoundError, {"model": "other"}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"max_tokens": 4000}),
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, {"response_format": {"type": "json_object"}}),
        (openai.BadRequestError, {"frequency_penalty": 0.5}),
    ]:
        try:
            client.chat.completions.create(**{"model": model, "messages": turns("a"), **change})
        except error as told:
            print(f"openai: {change} is refused: {told.body['message']}")
        else:
            sys.exit(f"{change} was not refused")
    try:
        openai.OpenAI(base_url=url, api_key="wrong").models.list()
    except openai.AuthenticationError:
        pass
    else:
        sys.exit("a wrong key was not refused")


TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ test: {data} }} }}
test_split: test
output_type: {output}
doc_to_text: "{text}"
target_delimiter: ""
{more}
"""
CHOICE = """doc_to_choice: choices
doc_to_target: gold
metric_list: [ { metric: acc } ]"""
GENERATE = """doc_to_target: answer
generation_kwargs: { until: ["\\n"], max_gen_toks: 24, temperature: 0 }
metric_list: [ { metric: exact_match, ignore_case: true } ]"""


def with_lm_eval(folder, url, prompts, expected):
    data = folder / "rows.jsonl"
    others = expected[1:] + expected[:1]
    rows = [{"prompt": prompt, "answer": answer, "choices": [other, answer], "gold": 1}
            for prompt, answer, other in zip(prompts, expected, others) if answer != other]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = folder / "tasks"
    tasks.mkdir()
    marked = "<bos><user>{{prompt}}<bot>"
    for name, output, text, more in [("likely", "multiple_choice", marked, CHOICE),
                                     ("written", "generate_until", marked, GENERATE),
                                     ("said", "generate_until", "{{prompt}}", GENERATE)]:
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, data=data, output=output, text=text, more=more))
    tokenizer = folder / "w/cache/views/tiny/sft/model"

    def evaluate(kind, route, task, metric, further, batch=1, *words):
        command = [ENVIRONMENT / "bin/lm-eval", "run", "--model", kind, "--tasks", task, "--include_path", tasks,
                   "--batch_size", str(batch), "--output_path", folder / f"{task}-{batch}", "--model_args",
                   f"model=sft,base_url={url}/{route},max_length=48,{further}", *words]
        done = subprocess.run([str(word) for word in command], env=variables(folder), text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        found = list((folder / f"{task}-{batch}").glob("**/results_*.json"))
        if done.returncode != 0 or not found:
            sys.exit(done.stdout)
        value = json.loads(found[0].read_text())["results"][task][f"{metric},none"]
        print(f"lm-eval: {kind}, {task}, batches of {batch}: {metric} {value} of {len(rows)} rows")
        assert value == 1.0, done.stdout

    huggingface = f"tokenizer_backend=huggingface,tokenizer={tokenizer}"
    evaluate("local-completions", "completions", "likely", "acc", huggingface)
    evaluate("local-completions", "completions", "likely", "acc", f"{huggingface},num_concurrent=2", 4)
    evaluate("local-completions", "completions", "written", "exact_match", huggingface, 3)
    evaluate("local-chat-completions", "chat/completions", "said", "exact_match", "num_concurrent=2", 1,
             "--apply_chat_template")


def main():
    if len(sys.argv) > 1:
        return with_client(sys.argv[1], *json.loads(sys.argv[2]))
    environment.made(ENVIRONMENT.name, PACKAGES)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="serve-check-"))
    server = None
    try:
        said(folder, "init", "w", "--template", "tiny")
        said(folder, "run", "sft", "--progress", "none")
        prompts = [f"what do i need for the {thing} ?" for thing in THINGS]
        expected = answers(folder, prompts)
        command, options = preflow(folder, "serve", "sft", "--port", "0", "--json")
        server = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        url = json.loads(server.stdout.readline())["url"]
        words = [ENVIRONMENT / "bin/python", __file__, url, json.dumps([prompts, expected])]
        subprocess.run(words, check=True, env=variables(folder))
        with_lm_eval(folder, url, prompts, expected)
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0, server.returncode
    finally:
        if server is not None and server.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
