using System.Buffers.Binary;

namespace PeftServer.Engine.Native;

/// <summary>
/// Edits the table of symbol versions that a 64-bit little-endian ELF file needs
/// (<see href="https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/symversion.html">Verneed</see>).
/// </summary>
internal static class ElfVersionNeeds
{
    public const string MissingOnOldSystems = "GLIBCXX_3.4.32";

    private const uint SectionOfNeeds = 0x6ffffffe; // SHT_GNU_verneed
    private const byte Weak = 0x2; // VER_FLG_WEAK: the linker warns where the version is missing, and goes on

    /// <summary>Marks the need of <paramref name="version"/> weak, in place. Throws when the file does not need it.</summary>
    public static byte[] Weaken(byte[] elf, string version)
    {
        var found = false;
        foreach (var section in Sections(elf).Where(section => U32(elf, section + 4) == SectionOfNeeds))
        {
            var strings = (long)U64(elf, SectionAt(elf, (int)U32(elf, section + 40)) + 24);
            foreach (var need in Needs(elf, (long)U64(elf, section + 24)))
            {
                if (Text(elf, strings + U32(elf, need + 8)) == version)
                {
                    elf[need + 4] |= Weak;
                    found = true;
                }
            }
        }

        return found ? elf : throw new TorchLoadException($"The file does not need {version}; its layout is not the expected one.");
    }

    private static IEnumerable<long> Sections(byte[] elf) =>
        Enumerable.Range(0, U16(elf, 0x3c)).Select(index => SectionAt(elf, index));

    private static long SectionAt(byte[] elf, int index) => (long)U64(elf, 0x28) + (64L * index);

    /// <summary>Offsets of every Vernaux entry of every Verneed entry from <paramref name="entry"/> on.</summary>
    private static IEnumerable<long> Needs(byte[] elf, long entry)
    {
        while (true)
        {
            var auxiliary = entry + U32(elf, entry + 8);
            for (var i = 0; i < U16(elf, entry + 2); i++)
            {
                yield return auxiliary;
                auxiliary += U32(elf, auxiliary + 12);
            }

            if (U32(elf, entry + 12) is 0)
            {
                yield break;
            }

            entry += U32(elf, entry + 12);
        }
    }

    private static string Text(byte[] elf, long offset)
    {
        var rest = elf.AsSpan((int)offset);
        return System.Text.Encoding.ASCII.GetString(rest[..rest.IndexOf((byte)0)]);
    }

    private static ushort U16(byte[] elf, long offset) => BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan((int)offset));

    private static uint U32(byte[] elf, long offset) => BinaryPrimitives.ReadUInt32LittleEndian(elf.AsSpan((int)offset));

    private static ulong U64(byte[] elf, long offset) => BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan((int)offset));
}
