using System.Text;

namespace PeftServer.Cli.Processes;

/// <summary>
/// What a child printed, byte for byte, in one file of at most 16 MB with one predecessor (<c>.1</c>), and its last
/// kilobytes in memory for the moment it dies.
/// </summary>
internal sealed class ChildLog(string path) : IDisposable
{
    private const long LargestFile = 16 << 20;
    private const int TailLength = 16 << 10;

    private readonly Lock _lock = new();
    private readonly byte[] _tail = new byte[TailLength];
    private FileStream _file = Open(path);
    private long _written; // bytes since the start, of which the last TailLength are in _tail

    public string Path => path;

    /// <summary>Copies <paramref name="output"/> until it ends, which it does when the last process holding it ends.</summary>
    public async Task CopyAsync(Stream output, CancellationToken cancellationToken)
    {
        var buffer = new byte[8192];
        while (await output.ReadAsync(buffer, cancellationToken) is var count and > 0)
        {
            Append(buffer.AsSpan(0, count));
        }
    }

    /// <summary>The last lines printed, oldest first.</summary>
    public IReadOnlyList<string> LastLines(int count)
    {
        lock (_lock)
        {
            var kept = (int)Math.Min(_written, TailLength);
            var start = (int)((_written - kept) % TailLength);
            var bytes = new byte[kept];
            for (var i = 0; i < kept; i++)
            {
                bytes[i] = _tail[(start + i) % TailLength];
            }
            return Encoding.UTF8.GetString(bytes).Split('\n', StringSplitOptions.RemoveEmptyEntries).TakeLast(count).ToArray();
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _file.Dispose();
        }
    }

    private void Append(ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            foreach (var b in bytes)
            {
                _tail[_written++ % TailLength] = b;
            }
            if (_file.Length + bytes.Length > LargestFile)
            {
                _file.Dispose();
                File.Move(path, path + ".1", overwrite: true);
                _file = Open(path);
            }
            try
            {
                _file.Write(bytes);
                _file.Flush();
            }
            catch (IOException)
            {
                // A full disk must not stop the pump: the child would block on a full pipe.
            }
        }
    }

    private static FileStream Open(string path) =>
        new(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
}
