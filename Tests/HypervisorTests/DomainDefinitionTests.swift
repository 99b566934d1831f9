import Hypervisor
import Testing

@Suite struct DomainDefinitionTests {
  private func spec(_ role: MachineSpec.Role) -> MachineSpec {
    MachineSpec(
      name: "dev", uuid: "11111111-2222-3333-4444-555555555555", role: role, memoryBytes: 268_435_456,
      vcpus: 2,
      kernelPath: "/images/vmlinuz", initrdPath: "/images/initrd", kernelCommandLine: "console=ttyS0 a='b'",
      disks: [
        .init(
          path: "/disks/1", format: .qcow2,
          backing: .init(export: "e1", socketPath: "/run/nbd.sock", reconnectSeconds: 20)),
        .init(path: "/images/data.raw", format: .raw, isReadOnly: true),
      ],
      generationID: "66666666-7777-8888-9999-000000000000", agentSocketPath: "/run/agent.sock",
      consoleLogPath: "/run/console.log", environment: ["LD_PRELOAD": "/lib/shim.so", "A": "<1>"])
  }

  private func xml(_ role: MachineSpec.Role, _ accelerator: Accelerator = .tcg) -> String {
    DomainDefinition(spec(role), accelerator: accelerator, fileEngine: .uring).xml
  }

  @Test func parent() {
    #expect(
      xml(.parent) == """
        <domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
          <name>dev</name>
          <uuid>11111111-2222-3333-4444-555555555555</uuid>
          <genid>66666666-7777-8888-9999-000000000000</genid>
          <metadata>
            <sf:machine xmlns:sf='https://snowfork/domain/1' role='parent'/>
          </metadata>
          <memory unit='b'>268435456</memory>
          <memoryBacking>
            <source type='file'/>
            <access mode='shared'/>
          </memoryBacking>
          <vcpu>2</vcpu>
          <os>
            <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
            <kernel>/images/vmlinuz</kernel>
            <initrd>/images/initrd</initrd>
            <cmdline>console=ttyS0 a=&apos;b&apos;</cmdline>
          </os>
          <features>
            <acpi/>
            <apic/>
            <vmport state='off'/>
            <tcg>
              <tb-cache unit='MiB'>128</tb-cache>
            </tcg>
          </features>
          <cpu mode='custom' match='exact' check='none'>
            <model fallback='forbid'>Nehalem</model>
            <feature policy='require' name='rdrand'/>
          </cpu>
          <clock offset='utc'>
            <timer name='hpet' present='no'/>
          </clock>
          <on_poweroff>destroy</on_poweroff>
          <on_reboot>destroy</on_reboot>
          <on_crash>destroy</on_crash>
          <devices>
            <controller type='usb' model='none'/>
            <controller type='virtio-serial' index='0' ports='2'/>
            <disk type='file' device='disk'>
              <driver name='qemu' type='qcow2' cache='unsafe' error_policy='report' rerror_policy='report' discard='unmap' io='io_uring'/>
              <source file='/disks/1'/>
              <backingStore/>
              <target dev='vda' bus='virtio'/>
            </disk>
            <disk type='file' device='disk'>
              <driver name='qemu' type='raw' cache='unsafe' error_policy='report' rerror_policy='report' discard='unmap' io='io_uring'/>
              <source file='/images/data.raw'/>
              <backingStore/>
              <target dev='vdb' bus='virtio'/>
              <readonly/>
            </disk>
            <serial type='file'>
              <source path='/run/console.log'/>
              <target port='0'/>
            </serial>
            <channel type='unix'>
              <source mode='bind' path='/run/agent.sock'/>
              <target type='virtio' name='org.snowfork.agent'/>
            </channel>
            <memballoon model='none'/>
            <panic model='isa'/>
          </devices>
          <qemu:commandline>
            <qemu:env name='A' value='&lt;1&gt;'/>
            <qemu:env name='LD_PRELOAD' value='/lib/shim.so'/>
          </qemu:commandline>
          <qemu:capabilities>
            <qemu:del capability='cpu-unavailable-features'/>
          </qemu:capabilities>
        </domain>

        """)
  }

  /// A slot differs from its parent in these lines only: any other difference could refuse the parent's state.
  @Test func slotIsAParentThatWaits() {
    let parent = Set(xml(.parent).split(separator: "\n"))
    let slot = Set(xml(.slot).split(separator: "\n"))
    #expect(
      parent.subtracting(slot) == [
        "    <sf:machine xmlns:sf='https://snowfork/domain/1' role='parent'/>",
        "    <kernel>/images/vmlinuz</kernel>",
        "    <initrd>/images/initrd</initrd>",
        "    <cmdline>console=ttyS0 a=&apos;b&apos;</cmdline>",
      ])
    #expect(
      slot.subtracting(parent) == [
        "    <sf:machine xmlns:sf='https://snowfork/domain/1' role='slot'/>",
        "    <qemu:arg value='-incoming'/>",
        "    <qemu:arg value='defer'/>",
      ])
  }

  @Test func underKVMTheHostsProcessorIsUsed() {
    let xml = xml(.parent, .kvm)
    #expect(xml.hasPrefix("<domain type='kvm' "))
    #expect(xml.contains("<cpu mode='host-passthrough' migratable='on'/>"))
    #expect(!xml.contains("<tcg>"))
  }
}
