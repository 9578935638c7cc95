using System.Text.Json;

namespace PeftServer.Cli.Up;

/// <summary>The folder in which one installation keeps everything, open in one process at a time.</summary>
internal sealed class DataDirectory : IDisposable
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly FileStream _lock;

    private DataDirectory(string root, FileStream @lock)
    {
        Root = root;
        _lock = @lock;
    }

    public string Root { get; }

    public string Logs => Path.Combine(Root, "logs");

    public string Models => Path.Combine(Root, "models");

    /// <summary>Creates the folder where there is none and takes its lock, or throws a <see cref="CommandException"/>.</summary>
    public static DataDirectory Open(string root)
    {
        try
        {
            Directory.CreateDirectory(root, OwnerOnly);
            Directory.CreateDirectory(Path.Combine(root, "logs"));
            return new DataDirectory(root, TakeLock(root, "another peftserver", "Stop it, or choose another folder with --data DIR."));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(
                $"The data directory {root} cannot be used: {error.Message} Choose another with --data DIR.", ExitCode.Environment, error);
        }
    }

    /// <summary>
    /// Takes the lock of <paramref name="folder"/>: a file lock, so that the kernel gives it back when this process ends.
    /// </summary>
    public static FileStream TakeLock(string folder, string holder, string remedy)
    {
        var path = Path.Combine(folder, "lock");
        try
        {
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException error) when (File.Exists(path))
        {
            throw new CommandException($"{folder} is in use by {holder}. {remedy}", ExitCode.Environment, error);
        }
    }

    /// <summary>Reads the record <paramref name="name"/>, or null where there is none.</summary>
    public T? Read<T>(string name)
        where T : class
    {
        var path = Path.Combine(Root, name);
        try
        {
            return File.Exists(path) ? JsonSerializer.Deserialize<T>(File.ReadAllBytes(path), Engine.PeftJson.Options) : null;
        }
        catch (JsonException error)
        {
            throw new CommandException($"{path} cannot be read: {error.Message}", ExitCode.Environment, error);
        }
    }

    /// <summary>Writes a record that only its owner may read: it holds a password.</summary>
    public void Write<T>(string name, T record)
    {
        var path = Path.Combine(Root, name);
        var options = new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        };
        using (var file = new FileStream(path + ".new", options))
        {
            JsonSerializer.Serialize(file, record, Engine.PeftJson.Indented);
            file.Flush(flushToDisk: true);
        }
        File.Move(path + ".new", path, overwrite: true); // whole or not at all
    }

    public void Dispose() => _lock.Dispose();
}
