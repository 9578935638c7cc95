using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests;

/// <summary>The sample model and data set of this repository.</summary>
internal static class Samples
{
    private static readonly Lazy<Tokenizer> Loaded = new(() => Engine.Tokenizers.Tokenizer.Load(TinyLlama));

    public static string RepositoryRoot { get; } = FindRepositoryRoot();

    public static string TinyLlama => Path.Combine(RepositoryRoot, "deploy", "samples", "models", "tiny-llama");

    public static string Spam => Path.Combine(RepositoryRoot, "deploy", "samples", "datasets", "spam");

    /// <summary>The reference cases: tiny models, tokenizers.</summary>
    public static string Goldens => Path.Combine(RepositoryRoot, "tests", "Goldens");

    /// <summary>The tokenizer of the sample model.</summary>
    public static Tokenizer Tokenizer => Loaded.Value;

    private static string FindRepositoryRoot()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "PeftServer.sln")))
            {
                return folder.FullName;
            }
        }

        throw new InvalidOperationException("PeftServer.sln is not above the tests.");
    }
}
