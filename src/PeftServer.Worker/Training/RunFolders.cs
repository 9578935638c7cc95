using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core;
using PeftServer.Core.Jobs;

namespace PeftServer.Worker.Training;

/// <summary>The run folders on this host: <c>{job}/{attempt}</c>. A claim is an attempt, so a zombie writes into a folder of its own.</summary>
internal sealed partial class RunFolders
{
    private readonly string _root;
    private readonly TimeProvider _clock;
    private readonly ILogger<RunFolders> _logger;

    public RunFolders(IOptions<WorkerOptions> options, TimeProvider clock, ILogger<RunFolders> logger)
    {
        (_root, _clock, _logger) = (options.Value.Runs, clock, logger);
        Directory.CreateDirectory(_root);
        Id = ReadOrMakeId(Path.Combine(_root, ".id"));
    }

    /// <summary>Names this folder in the rows: only who has it can go on from what lies there.</summary>
    public string Id { get; }

    public RunFolder Of(string jobId, int attempt) =>
        new(Path.Combine(_root, jobId, attempt.ToString(System.Globalization.CultureInfo.InvariantCulture)));

    /// <summary>Removes the runs of jobs in which nothing has been written for so long.</summary>
    public void RemoveOlderThan(TimeSpan age)
    {
        var limit = _clock.GetUtcNow().UtcDateTime - age;
        foreach (var folder in new DirectoryInfo(_root).EnumerateDirectories().Where(folder => Newest(folder) < limit))
        {
            try
            {
                folder.Delete(recursive: true);
                Removed(_logger, folder.Name);
            }
            catch (IOException e)
            {
                NotRemoved(_logger, folder.Name, e.Message); // another worker of this host is at it
            }
        }
    }

    private static DateTime Newest(DirectoryInfo folder) => folder
        .EnumerateFileSystemInfos("*", SearchOption.AllDirectories)
        .Select(entry => entry.LastWriteTimeUtc).Append(folder.LastWriteTimeUtc).Max();

    private static string ReadOrMakeId(string path)
    {
        try
        {
            using var file = new StreamWriter(new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None));
            var id = PublicId.Random(16);
            file.Write(id);
            return id;
        }
        catch (IOException) when (File.Exists(path))
        {
            return File.ReadAllText(path);
        }
    }

    [LoggerMessage(LogLevel.Information, "Removed the run folder of {JobId}")]
    private static partial void Removed(ILogger logger, string jobId);

    [LoggerMessage(LogLevel.Warning, "Did not remove the run folder of {JobId}: {Reason}")]
    private static partial void NotRemoved(ILogger logger, string jobId, string reason);
}
