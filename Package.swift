// swift-tools-version: 6.2
// The way of the data is the layout: docs/architecture.md names the targets in the order of a fork.
import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
]

let package = Package(
  name: "snowfork",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "sfctl", targets: ["sfctl"]),
    .executable(name: "sfd", targets: ["sfd"]),
    .executable(name: "sf-memtap", targets: ["sf-memtap"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.15.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/grpc/grpc-swift-2", from: "2.4.3"),
    .package(url: "https://github.com/grpc/grpc-swift-nio-transport", from: "2.9.2"),
    .package(url: "https://github.com/grpc/grpc-swift-protobuf", from: "2.4.1"),
  ],
  targets: [
    // 1  the operator's door
    .executableTarget(
      name: "sfctl",
      dependencies: [
        "Wire", "LinuxSystem", "Hypervisor", "CloneNetwork", "ReplicationPolicy",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: strict),
    .executableTarget(name: "sfd", dependencies: ["Fork", "LinuxSystem"], swiftSettings: strict),
    .executableTarget(name: "sf-memtap", dependencies: ["Memtap", "LinuxSystem"], swiftSettings: strict),

    // 2  the VM-fork service
    .target(
      name: "Fork",
      dependencies: [
        "Descriptor", "Memtap", "CloneDisk", "CloneNetwork", "Hypervisor", "Wire", "GuestWire", "GuestKernel",
        "GuestMemory", "LinuxSystem", "Replicator", "ReplicationPolicy",
        .product(name: "GRDB", package: "GRDB.swift"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "X509", package: "swift-certificates"),
      ], swiftSettings: strict),

    // 3  a VM's state without its RAM
    .target(
      name: "Descriptor",
      dependencies: ["GuestMemory", .product(name: "Crypto", package: "swift-crypto")],
      swiftSettings: strict),

    // 4  pages to many hosts
    .target(
      name: "Mcdist",
      dependencies: [
        "GuestMemory", "LinuxSystem", "CZstd", .product(name: "Crypto", package: "swift-crypto"),
      ], swiftSettings: strict),

    // 5  pages on access
    .target(
      name: "Memtap",
      dependencies: ["GuestKernel", "GuestMemory", "LinuxSystem", "Mcdist", "Replicator"],
      swiftSettings: strict),

    // 6  checkpoints to a standby
    .target(
      name: "Replicator",
      dependencies: [
        "GuestMemory", "LinuxSystem", "CZstd", .product(name: "Crypto", package: "swift-crypto"),
      ], path: "Sources/CloneAugmenter/Replicator", sources: ["Checkpoint"], swiftSettings: strict),

    // 6  the device's calls, at home or in a clone; the guest's program has it too
    .target(name: "Controller", path: "Sources/CloneAugmenter/Controller", swiftSettings: strict),

    // 6  the device and its clone: when a standby gets its next checkpoint
    .target(
      name: "ReplicationPolicy", path: "Sources/CloneAugmenter/Replicator/Policy", swiftSettings: strict),

    // what the phases stand on
    .target(
      name: "CloneDisk",
      dependencies: ["LinuxSystem", .product(name: "Logging", package: "swift-log")], swiftSettings: strict),
    .target(
      name: "Hypervisor", dependencies: ["CLibvirt", "LinuxSystem"], swiftSettings: strict),
    .target(
      name: "CloneNetwork", dependencies: ["CLibnl", "CLibnftables", "LinuxSystem"], swiftSettings: strict),
    .target(name: "GuestMemory", swiftSettings: strict),
    .target(name: "GuestKernel", dependencies: ["GuestMemory"], swiftSettings: strict),
    .target(
      name: "Wire",
      dependencies: [
        .product(name: "GRPCCore", package: "grpc-swift-2"),
        .product(name: "GRPCNIOTransportHTTP2", package: "grpc-swift-nio-transport"),
        .product(name: "GRPCProtobuf", package: "grpc-swift-protobuf"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
      ], exclude: ["proto"], swiftSettings: strict),
    .target(name: "GuestWire", swiftSettings: strict),
    // 6  process offload: what the guest's sf-offload is built from, too
    .target(name: "Augmenter", path: "Sources/CloneAugmenter/Augmenter", swiftSettings: strict),
    .target(name: "LinuxSystem", dependencies: ["CLinux"], swiftSettings: strict),
    .target(name: "CLinux"),
    .systemLibrary(
      name: "CLibvirt", pkgConfig: "libvirt-qemu", providers: [.apt(["libvirt-dev"])]),
    .systemLibrary(name: "CLibnl", pkgConfig: "libnl-3.0", providers: [.apt(["libnl-3-dev"])]),
    .systemLibrary(name: "CLibnftables", pkgConfig: "libnftables", providers: [.apt(["libnftables-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .testTarget(name: "ControllerTests", dependencies: ["Controller"], swiftSettings: strict),
    .testTarget(name: "AugmenterTests", dependencies: ["Augmenter"], swiftSettings: strict),
    .testTarget(name: "GuestWireTests", dependencies: ["GuestWire"], swiftSettings: strict),
    .testTarget(
      name: "DescriptorTests",
      dependencies: ["Descriptor", .product(name: "Crypto", package: "swift-crypto")],
      swiftSettings: strict),
    .testTarget(name: "HypervisorTests", dependencies: ["Hypervisor", "LinuxSystem"], swiftSettings: strict),
    .testTarget(
      name: "SfctlTests",
      dependencies: [
        "sfctl", "Wire",
        .product(name: "GRPCCore", package: "grpc-swift-2"),
        .product(name: "GRPCNIOTransportHTTP2", package: "grpc-swift-nio-transport"),
      ], swiftSettings: strict),
    .testTarget(
      name: "ForkTests",
      dependencies: [
        "Fork", "GuestWire", "ReplicationPolicy", .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOEmbedded", package: "swift-nio"),
      ], swiftSettings: strict),
    .testTarget(
      name: "CloneDiskTests",
      dependencies: ["CloneDisk", "LinuxSystem", .product(name: "Logging", package: "swift-log")],
      swiftSettings: strict),
    .testTarget(
      name: "CloneNetworkTests", dependencies: ["CloneNetwork", "LinuxSystem"], swiftSettings: strict),
    .testTarget(
      name: "GuestKernelTests", dependencies: ["GuestKernel", "GuestMemory"], swiftSettings: strict),
    .testTarget(name: "GuestMemoryTests", dependencies: ["GuestMemory"], swiftSettings: strict),
    .testTarget(
      name: "McdistTests",
      dependencies: [
        "Mcdist", "McdistSimulation", "GuestMemory", "LinuxSystem",
        .product(name: "Crypto", package: "swift-crypto"),
      ],
      swiftSettings: strict),
    .target(
      name: "McdistSimulation", dependencies: ["Mcdist", "GuestMemory"], path: "Tests/McdistSimulation",
      swiftSettings: strict),
    .testTarget(name: "ReplicationPolicyTests", dependencies: ["ReplicationPolicy"], swiftSettings: strict),
    .testTarget(name: "LinuxSystemTests", dependencies: ["LinuxSystem"], swiftSettings: strict),
    .testTarget(
      name: "MemtapTests",
      dependencies: ["Memtap", "Replicator", "LinuxSystem", "GuestMemory", "sf-memtap", "memtap-test-guest"],
      swiftSettings: strict),
    .testTarget(
      name: "ReplicatorTests", dependencies: ["Replicator", "GuestMemory"], swiftSettings: strict),
    .target(
      name: "Support", path: "Tests/Support", exclude: ["memtap-test-guest"], swiftSettings: strict),
    .testTarget(
      name: "IntegrationTests", dependencies: ["Support", "LinuxSystem"], path: "Tests/Integration",
      exclude: ["guest"],
      swiftSettings: strict),
    .executableTarget(
      name: "bench-fault", dependencies: ["Memtap", "LinuxSystem", "sf-memtap", "memtap-test-guest"],
      path: "bench/fault", exclude: ["run"], swiftSettings: strict),
    .executableTarget(
      name: "bench-scale", dependencies: ["McdistSimulation"], path: "bench/scale", exclude: ["run"],
      swiftSettings: strict),
    .target(
      name: "BenchSupport", dependencies: ["LinuxSystem"], path: "bench/support", swiftSettings: strict),
    .executableTarget(
      name: "bench-mcdist", dependencies: ["BenchSupport", "Mcdist", "GuestMemory", "LinuxSystem"],
      path: "bench/mcdist",
      exclude: ["run"], swiftSettings: strict),
    .executableTarget(
      name: "bench-net", dependencies: ["CloneNetwork", "LinuxSystem"], path: "bench/net",
      exclude: ["run"], swiftSettings: strict),
    .executableTarget(
      name: "bench-fork", dependencies: ["BenchSupport", "GuestWire", "LinuxSystem"], path: "bench/fork",
      exclude: ["run", "guest"], swiftSettings: strict),
    .executableTarget(
      name: "bench-offload", dependencies: ["BenchSupport", "LinuxSystem"], path: "bench/offload",
      exclude: ["run", "inputs"], swiftSettings: strict),
    .executableTarget(name: "memtap-test-guest", path: "Tests/Support/memtap-test-guest"),
  ]
)
