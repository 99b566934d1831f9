/// The libvirt domain of a machine.
///
/// Parent and slots get the same devices in the same order, hence the same addresses: that is what makes a
/// parent's device state load into a slot. They differ in what a slot does not need because it never boots
/// (kernel and initial RAM disk, 18 MB of host memory each) and in `-incoming defer`.
///
/// There are no more devices than a fork needs. Each one costs state in the stream, and time in the pause.
package struct DomainDefinition {
  /// Namespace of our element in a domain's metadata: a domain without it is not ours.
  package static let metadataNamespace = "https://snowfork/domain/1"
  /// Name of the virtio-serial port that the guest's agent opens.
  package static let agentPortName = "org.snowfork.agent"
  package static let machineType = "pc-i440fx-7.2"
  /// Of this machine type (hw/i386/pc_piix.c): RAM of 3.5 GiB and more leaves room for devices from 3 GiB on.
  package static func lowMemoryBytes(of memoryBytes: UInt64) -> UInt64 {
    memoryBytes >= 0xe000_0000 ? 0xc000_0000 : memoryBytes
  }
  /// The CPU model that QEMU's TCG emulates without leaving anything out, and instructions added to it.
  package static let emulatedCPU = "Nehalem"
  package static let emulatedCPUFeatures = ["rdrand"]
  /// Host memory that TCG may fill with translated code. QEMU's own default is 1 GiB for each machine.
  package static let translationCacheMebibytes = 128

  let spec: MachineSpec
  let accelerator: Accelerator
  let fileEngine: FileEngine

  package init(_ spec: MachineSpec, accelerator: Accelerator, fileEngine: FileEngine) {
    self.spec = spec
    self.accelerator = accelerator
    self.fileEngine = fileEngine
  }

  /// The document for `virDomainCreateXML`.
  package var xml: String { domain.serialized() }

  private var domain: XMLElement {
    let parts = [
      XMLElement("name", text: spec.name),
      XMLElement("uuid", text: spec.uuid),
      XMLElement("genid", text: spec.generationID),
      metadata,
      XMLElement("memory", [("unit", "b")], text: "\(spec.memoryBytes)"),
      XMLElement(
        "memoryBacking",
        children: [
          XMLElement("source", [("type", "file")]),
          XMLElement("access", [("mode", "shared")]),
        ]),
      XMLElement("vcpu", text: "\(spec.vcpus)"),
      operatingSystem, features, cpu, clock,
      XMLElement("on_poweroff", text: "destroy"),
      XMLElement("on_reboot", text: "destroy"),
      XMLElement("on_crash", text: "destroy"),
      devices, commandLine, capabilities,
    ]
    return XMLElement(
      "domain",
      [
        ("type", accelerator == .kvm ? "kvm" : "qemu"),
        ("xmlns:qemu", "http://libvirt.org/schemas/domain/qemu/1.0"),
      ], children: parts)
  }

  private var metadata: XMLElement {
    XMLElement(
      "metadata",
      children: [
        XMLElement(
          "sf:machine", [("xmlns:sf", Self.metadataNamespace), ("role", spec.role.rawValue)])
      ])
  }

  private var operatingSystem: XMLElement {
    var parts = [XMLElement("type", [("arch", "x86_64"), ("machine", Self.machineType)], text: "hvm")]
    if spec.role == .parent {
      if let kernel = spec.kernelPath { parts.append(XMLElement("kernel", text: kernel)) }
      if let initrd = spec.initrdPath { parts.append(XMLElement("initrd", text: initrd)) }
      if spec.kernelPath != nil { parts.append(XMLElement("cmdline", text: spec.kernelCommandLine)) }
    }
    return XMLElement("os", children: parts)
  }

  private var features: XMLElement {
    var parts = [
      XMLElement("acpi"), XMLElement("apic"), XMLElement("vmport", [("state", "off")]),
    ]
    if accelerator == .tcg {
      parts.append(
        XMLElement(
          "tcg",
          children: [
            XMLElement("tb-cache", [("unit", "MiB")], text: "\(Self.translationCacheMebibytes)")
          ]))
    }
    return XMLElement("features", children: parts)
  }

  private var cpu: XMLElement {
    switch accelerator {
    case .kvm: XMLElement("cpu", [("mode", "host-passthrough"), ("migratable", "on")])
    case .tcg:
      XMLElement(
        "cpu", [("mode", "custom"), ("match", "exact"), ("check", "none")],
        children: [XMLElement("model", [("fallback", "forbid")], text: Self.emulatedCPU)]
          + Self.emulatedCPUFeatures.map { XMLElement("feature", [("policy", "require"), ("name", $0)]) })
    }
  }

  private var clock: XMLElement {
    XMLElement(
      "clock", [("offset", "utc")],
      children: [
        XMLElement("timer", [("name", "hpet"), ("present", "no")])
      ])
  }

  private var devices: XMLElement {
    XMLElement(
      "devices",
      children: [
        XMLElement("controller", [("type", "usb"), ("model", "none")]),
        // A port has two queues, which QEMU detaches from the host in the pause; libvirt's default is 31 ports.
        XMLElement("controller", [("type", "virtio-serial"), ("index", "0"), ("ports", "2")]),
      ] + spec.disks.enumerated().map(disk) + (spec.network.map { [card($0)] } ?? []) + [
        XMLElement(
          "serial", [("type", "file")],
          children: [
            XMLElement("source", [("path", spec.consoleLogPath)]),
            XMLElement("target", [("port", "0")]),
          ]),
        XMLElement(
          "channel", [("type", "unix")],
          children: [
            XMLElement("source", [("mode", "bind"), ("path", spec.agentSocketPath)]),
            XMLElement("target", [("type", "virtio"), ("name", Self.agentPortName)]),
          ]),
        XMLElement("memballoon", [("model", "none")]),
        XMLElement("panic", [("model", "isa")]),
      ])
  }

  /// Its file goes with the machine, so nothing waits for it to reach the host's disk; what it lies on is put under it before
  /// the machine runs. Errors are the guest's to know.
  private func disk(_ index: Int, _ disk: MachineDisk) -> XMLElement {
    let letter = String(UnicodeScalar(UInt8(ascii: "a") + UInt8(index)))
    return XMLElement(
      "disk", [("type", "file"), ("device", "disk")],
      children: [
        XMLElement(
          "driver",
          [
            ("name", "qemu"), ("type", disk.format.rawValue), ("cache", "unsafe"),
            ("error_policy", "report"), ("rerror_policy", "report"), ("discard", "unmap"),
            ("io", fileEngine.rawValue),
          ]),
        XMLElement("source", [("file", disk.path)]),
        XMLElement("backingStore"),
        XMLElement("target", [("dev", "vd\(letter)"), ("bus", "virtio")]),
      ] + (disk.isReadOnly ? [XMLElement("readonly")] : []))
  }

  /// QEMU itself carries the frames, not the kernel's vhost: its state is then all in the stream, and guest memory is
  /// touched by QEMU alone. No boot ROM, which would be one more block of memory to keep.
  private func card(_ network: MachineNetwork) -> XMLElement {
    XMLElement(
      "interface", [("type", "ethernet")],
      children: [
        XMLElement("mac", [("address", network.mac)]),
        XMLElement("target", [("dev", network.tap), ("managed", "no")]),
        XMLElement("model", [("type", "virtio")]),
        XMLElement("driver", [("name", "qemu")]),
        XMLElement("mtu", [("size", "\(network.mtu)")]),
        XMLElement("rom", [("enabled", "no")]),
      ])
  }

  private var commandLine: XMLElement {
    var parts: [XMLElement] = []
    if spec.role == .slot {
      parts += ["-incoming", "defer"].map { XMLElement("qemu:arg", [("value", $0)]) }
    }
    for (name, value) in spec.environment.sorted(by: { $0.key < $1.key }) {
      parts.append(XMLElement("qemu:env", [("name", name), ("value", value)]))
    }
    return XMLElement("qemu:commandline", children: parts)
  }

  /// libvirt compares the guest's CPU with the one asked for when it starts a machine. With this capability it
  /// reads some 350 properties one by one, of which QEMU takes each byte in a turn of its event loop: half of the
  /// processor time of a start. Without it, it reads the CPU's feature words.
  private var capabilities: XMLElement {
    XMLElement(
      "qemu:capabilities",
      children: [XMLElement("qemu:del", [("capability", "cpu-unavailable-features")])])
  }
}
