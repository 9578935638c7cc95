using Microsoft.Extensions.Options;

namespace PeftServer.Core.Models;

/// <param name="Name">The folder's name, which is the model's; a GGUF file's without its ending.</param>
/// <param name="Folder">Absolute path: config.json, weights, tokenizer; or the GGUF file that holds them all.</param>
/// <param name="CreatedAt">When its config.json, or the GGUF file, was written.</param>
public sealed record BaseModel(string Name, string Folder, DateTimeOffset CreatedAt);

/// <summary>The base models in <c>Models:Root</c>, read at every call: a folder or a GGUF file dropped into it is there at once.</summary>
public sealed class BaseModels(IOptions<ModelsOptions> options)
{
    public IReadOnlyList<BaseModel> List()
    {
        var root = new DirectoryInfo(options.Value.Root);
        return root.Exists
            ? [.. root.EnumerateFileSystemInfos().Select(Read).OfType<BaseModel>().DistinctBy(model => model.Name).OrderBy(model => model.Name, StringComparer.Ordinal)]
            : [];
    }

    /// <summary>The model of that very name; null when there is none. A name can not lead out of the root.</summary>
    public BaseModel? Find(string name) => List().FirstOrDefault(model => model.Name == name);

    private static BaseModel? Read(FileSystemInfo entry) => entry switch
    {
        DirectoryInfo folder => Read(folder),
        FileInfo { Extension: ".gguf" } file => new BaseModel(Path.GetFileNameWithoutExtension(file.Name), file.FullName, file.LastWriteTimeUtc),
        _ => null,
    };

    private static BaseModel? Read(DirectoryInfo folder)
    {
        var config = new FileInfo(Path.Combine(folder.FullName, "config.json"));
        config = config.Exists ? config : folder.Exists ? folder.EnumerateFiles("*.gguf").FirstOrDefault() : null;
        return config is null ? null : new BaseModel(folder.Name, folder.FullName, config.LastWriteTimeUtc);
    }
}
