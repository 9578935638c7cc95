namespace PeftServer.Cli.Up;

/// <summary>A link in a server's Models:Root to a model that lies elsewhere.</summary>
internal static class ModelLink
{
    /// <summary>
    /// Links <paramref name="target"/>, a folder or a file, as <paramref name="name"/>; a link of that name is replaced. Gives its path. Throws
    /// <see cref="CommandException"/> where the name is a path, or taken by something that is no link.
    /// </summary>
    public static string Create(string target, DirectoryInfo root, string name)
    {
        if (Path.GetFileName(name) != name || name is "" or "." or "..")
        {
            throw new CommandException($"--name {name}: a name is not a path.", ExitCode.Usage);
        }

        root.Create();
        var path = Path.Combine(root.FullName, name);
        if (path == target)
        {
            return path;
        }

        if (new FileInfo(path).LinkTarget is not null)
        {
            File.Delete(path); // an older commit of the same model
        }
        else if (Path.Exists(path))
        {
            throw new CommandException($"{path} is there already and is no link. Choose another name.", ExitCode.Usage);
        }

        if (Directory.Exists(target))
        {
            Directory.CreateSymbolicLink(path, target);
        }
        else
        {
            File.CreateSymbolicLink(path, target);
        }

        return path;
    }
}
