# The commands of docs/, for Debian 12 with a Swift 6.3 toolchain, as root. Each is safe to run twice: the second run
# does no work that the first has done. One configuration, release, for programs, tests and the demo alike.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SNOWFORK_STATE ?= /var/lib/snowfork
IMAGE ?= mini
PREFIX ?= /usr/local
DESTDIR ?=

shim := build/lib/libsnowfork-ramshim.so
programs := sfctl sfd sf-memtap
# Directories too: a file that was removed or renamed is a change.
swift_inputs := Package.swift $(shell find Sources Tests $(wildcard bench/*/) -name results -prune -o -not -path '*/.*' \( -type d -o -type f \) -print)

.PHONY: help setup build guest image images demo test check bench install clean
help:
	@echo "make demo | test | build | check | bench | image IMAGE=mini|debian|debian-disk|mpi | install PREFIX=$(PREFIX) | clean"

# Debian packages by name; asks apt only for what is missing.
setup:
	@tools/setup

build: setup build/.swift $(shim) guest $(programs:%=bin/%)

build/.swift: $(swift_inputs)
	@mkdir -p build
	swift build -c release --build-tests
	@touch $@

$(shim): $(wildcard Sources/RAMShim/*) $(wildcard Sources/CLinux/include/ramshim*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror -ISources/CLinux/include \
	  -o $@ Sources/RAMShim/*.c -ldl -lpthread

bin/%: | build/.swift
	@mkdir -p bin
	@ln -sfn ../.build/release/$* $@

# Each of these scripts looks for itself whether its inputs have changed.
guest:
	@guest/build

image: build
	@images/build $(IMAGE) $(SNOWFORK_STATE)/images/$(IMAGE)

images: build
	@images/build mini $(SNOWFORK_STATE)/images/mini
	@images/build debian $(SNOWFORK_STATE)/images/debian
	@images/build debian-disk $(SNOWFORK_STATE)/images/debian-disk

demo: build
	@images/build mini $(SNOWFORK_STATE)/images/mini
	@demo/run

test: check build images
	@tools/test

# swift-format comes with the toolchain; its configuration is .swift-format.
check:
	@swift format lint --strict --recursive --parallel Package.swift Sources Tests guest bench
	@tools/style

bench: build images
	@tools/bench

install: build
	tools/install $(DESTDIR)$(PREFIX)

# Leaves $(SNOWFORK_STATE) alone: images and snapshots are the user's.
clean:
	rm -rf .build build bin bench/results/*.jsonl
