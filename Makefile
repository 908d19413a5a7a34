.PHONY: demo real test slow wheels wheels-check trackers serve-check capabilities bench peers attack check catalog interop libtorch browser moto remote-check
export CARGO_TERM_COLOR ?= auto

demo:
	program=$$(./scripts/program.sh) && $$program run pipelines/workshop.yaml && $$program report pipelines/workshop.yaml

real: libtorch
	./scripts/real.sh

test: libtorch browser moto
	cargo test --workspace --locked --quiet

wheels: libtorch
	./wheels/build.sh

trackers: libtorch
	cargo build --release --locked
	python3 scripts/trackers.py

serve-check: libtorch
	cargo build --release --locked
	python3 scripts/serve_check.py

wheels-check:
	./wheels/check.sh

slow: libtorch
	cargo test -p preflow-stages --locked -- --ignored --nocapture

capabilities: libtorch
	./scripts/capabilities.sh

bench: libtorch
	cargo build --release --locked
	python3 scripts/bench.py

peers: libtorch
	cargo build --release --locked
	python3 scripts/peers.py $(PEERS)

interop: libtorch
	cargo build --release --locked
	python3 scripts/interop.py

attack: libtorch
	cargo build --release --locked
	python3 scripts/attack $(ATTACK)

check: libtorch
	cargo fmt --check && cargo clippy --workspace --all-targets --locked -- -D warnings

catalog: libtorch
	cargo run -q -p preflow-stages --bin preflow-worker -- describe > stages/catalog.json.new
	mv stages/catalog.json.new stages/catalog.json
	cargo run -q -p preflow -- schema > pipelines/schema.json
	cargo run -q -p preflow -- kinds --markdown > docs/kinds.md

libtorch:
	@./scripts/libtorch.sh

browser:
	@./scripts/browser.sh

moto:
	@./scripts/moto.sh

remote-check: moto
	./scripts/remote-check.sh
