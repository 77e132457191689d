# Two commands on a fresh machine: `make demo` and `make test`. Both install what is missing.
# On a bare Debian: apt-get install make.

# The cargo profile of the demo; PROFILE=release is slower to build and faster to run.
PROFILE ?= dev
ONCE ?=

target := $(or $(CARGO_TARGET_DIR),target)
built := $(target)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/goodstanding

.PHONY: help demo test check bench clean-var

help:
	@echo 'make demo         a whole responder on this machine, until Ctrl-C (ONCE=1: check and end)'
	@echo 'make test         every test, against the real tools'
	@echo 'make check        formatting, clippy and rustdoc, warnings denied'
	@echo 'make bench        the benchmarks'
	@echo 'make clean-var    forget the demo and the test tools (var/)'

demo:
	@scripts/packages build demo
	cargo build --locked --profile $(PROFILE) --bin goodstanding
	@ONCE=$(ONCE) scripts/demo $(built)

test:
	@scripts/packages build demo test
	@scripts/venv
	cargo test --locked --workspace

check:
	@scripts/packages build
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

bench:
	@scripts/packages build demo
	cargo bench --locked

clean-var:
	rm -rf var
