using Microsoft.Extensions.Options;

namespace PeftServer.Core.Models;

/// <param name="Name">The folder's name, which is the model's.</param>
/// <param name="Folder">Absolute path: config.json, safetensors, tokenizer.</param>
/// <param name="CreatedAt">When its config.json was written.</param>
public sealed record BaseModel(string Name, string Folder, DateTimeOffset CreatedAt);

/// <summary>The base models in <c>Models:Root</c>, read at every call: a folder dropped into it is there at once.</summary>
public sealed class BaseModels(IOptions<ModelsOptions> options)
{
    public IReadOnlyList<BaseModel> List()
    {
        var root = new DirectoryInfo(options.Value.Root);
        return root.Exists
            ? [.. root.EnumerateDirectories().Select(Read).OfType<BaseModel>().OrderBy(model => model.Name, StringComparer.Ordinal)]
            : [];
    }

    /// <summary>The model of that very name; null when there is none. A name can not lead out of the root.</summary>
    public BaseModel? Find(string name) => List().FirstOrDefault(model => model.Name == name);

    private static BaseModel? Read(DirectoryInfo folder)
    {
        var config = new FileInfo(Path.Combine(folder.FullName, "config.json"));
        return config.Exists ? new BaseModel(folder.Name, folder.FullName, config.LastWriteTimeUtc) : null;
    }
}
