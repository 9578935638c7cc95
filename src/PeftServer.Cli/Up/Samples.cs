namespace PeftServer.Cli.Up;

/// <summary>The sample models and data sets that lie beside the program.</summary>
internal static class Samples
{
    public static string Folder => Path.Combine(AppContext.BaseDirectory, "samples");

    /// <summary>Copies the sample models that <paramref name="models"/> lacks; each appears there whole.</summary>
    public static void CopyModelsTo(string models)
    {
        Directory.CreateDirectory(models);
        foreach (var sample in Directory.EnumerateDirectories(Path.Combine(Folder, "models")))
        {
            var target = Path.Combine(models, Path.GetFileName(sample));
            if (Directory.Exists(target))
            {
                continue;
            }
            var unfinished = Directory.CreateDirectory(Path.Combine(models, $".{Path.GetFileName(sample)}.{Environment.ProcessId}")).FullName;
            foreach (var file in Directory.EnumerateFiles(sample))
            {
                File.Copy(file, Path.Combine(unfinished, Path.GetFileName(file)), overwrite: true);
            }
            Directory.Move(unfinished, target);
        }
    }
}
