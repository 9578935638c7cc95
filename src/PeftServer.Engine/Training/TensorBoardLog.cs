using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace PeftServer.Engine.Training;

/// <summary>
/// Metrics as TensorBoard reads them: an event file in <c>tensorboard/</c> of the run folder, records of a masked CRC-32C each, in them the protocol buffers of TensorFlow's
/// <see href="https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto">Event</see>. A run that goes on writes a further file.
/// </summary>
internal sealed class TensorBoardLog : IDisposable
{
    private readonly FileStream _file;
    private readonly TimeProvider _clock;

    public TensorBoardLog(string runFolder, TimeProvider clock)
    {
        _clock = clock;
        var folder = Directory.CreateDirectory(Path.Combine(runFolder, "tensorboard")).FullName;
        var name = FormattableString.Invariant($"events.out.tfevents.{clock.GetUtcNow().ToUnixTimeMilliseconds()}.peftserver.{Environment.ProcessId}");
        _file = new FileStream(Path.Combine(folder, name), FileMode.Create, FileAccess.Write, FileShare.Read);
        var version = new ProtobufWriter();
        version.Double(1, Seconds());
        version.Text(3, "brain.Event:2");
        Record(version.ToArray());
    }

    /// <summary>Numbers of one step by their tags.</summary>
    public void Write(int step, IEnumerable<(string Tag, double Value)> scalars)
    {
        var summary = new ProtobufWriter();
        foreach (var (tag, value) in scalars)
        {
            var entry = new ProtobufWriter();
            entry.Text(1, tag);
            entry.Float(2, (float)value);
            summary.Message(1, entry.ToArray());
        }

        var written = new ProtobufWriter();
        written.Double(1, Seconds());
        written.Integer(2, (ulong)step);
        written.Message(5, summary.ToArray());
        Record(written.ToArray());
        _file.Flush();
    }

    public void Dispose() => _file.Dispose();

    private double Seconds() => _clock.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0;

    private void Record(byte[] data)
    {
        Span<byte> number = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(number, (ulong)data.Length);
        _file.Write(number);
        WriteChecksum(number);
        _file.Write(data);
        WriteChecksum(data);
    }

    private void WriteChecksum(ReadOnlySpan<byte> data)
    {
        var crc = uint.MaxValue;
        foreach (var one in data)
        {
            crc = BitOperations.Crc32C(crc, one);
        }

        crc = ~crc;
        Span<byte> masked = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(masked, BitOperations.RotateRight(crc, 15) + 0xA282EAD8);
        _file.Write(masked);
    }

    /// <summary>Fields of a protocol buffer, as far as events need them.</summary>
    private sealed class ProtobufWriter
    {
        private readonly List<byte> _bytes = [];

        public byte[] ToArray() => [.. _bytes];

        public void Integer(int field, ulong value)
        {
            Varint((ulong)field << 3);
            Varint(value);
        }

        public void Double(int field, double value)
        {
            Varint(((ulong)field << 3) | 1);
            Span<byte> bytes = stackalloc byte[8];
            BinaryPrimitives.WriteDoubleLittleEndian(bytes, value);
            _bytes.AddRange(bytes);
        }

        public void Float(int field, float value)
        {
            Varint(((ulong)field << 3) | 5);
            Span<byte> bytes = stackalloc byte[4];
            BinaryPrimitives.WriteSingleLittleEndian(bytes, value);
            _bytes.AddRange(bytes);
        }

        public void Text(int field, string value) => Message(field, Encoding.UTF8.GetBytes(value));

        public void Message(int field, byte[] value)
        {
            Varint(((ulong)field << 3) | 2);
            Varint((ulong)value.Length);
            _bytes.AddRange(value);
        }

        private void Varint(ulong value)
        {
            while (value >= 0x80)
            {
                _bytes.Add((byte)(value | 0x80));
                value >>= 7;
            }

            _bytes.Add((byte)value);
        }
    }
}
