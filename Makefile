.PHONY: demo real test capabilities bench attack check catalog interop libtorch browser moto remote-check
export CARGO_TERM_COLOR ?= auto

demo: libtorch
	cargo build --release --locked
	./target/release/preflow run pipelines/workshop.yaml && ./target/release/preflow report pipelines/workshop.yaml

real: libtorch
	./scripts/real.sh

test: libtorch browser moto
	cargo test --workspace --locked --quiet

capabilities: libtorch
	./scripts/capabilities.sh

bench: libtorch
	cargo build --release --locked
	python3 scripts/bench.py

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
