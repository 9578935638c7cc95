namespace PeftServer.Engine.Adapters;

/// <summary>A finished adapter that another one works with.</summary>
/// <param name="Folder">Name of the folder, beside the other one's files, that holds it.</param>
/// <param name="Field">The setting that names it.</param>
/// <param name="Name">What that setting says; in a job, the id of a fine-tuned model.</param>
public sealed record Expert(string Folder, string Field, string Name);
