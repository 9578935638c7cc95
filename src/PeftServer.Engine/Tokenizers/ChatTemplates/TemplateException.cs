namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>A chat template that is broken, refuses a chat (<c>raise_exception</c>), or asks for more than it may.</summary>
public sealed class TemplateException : Exception
{
    public TemplateException(string message)
        : base(message)
    {
    }

    /// <summary>Line of the template, from 1; 0 where it is not known.</summary>
    public int Line { get; init; }
}
