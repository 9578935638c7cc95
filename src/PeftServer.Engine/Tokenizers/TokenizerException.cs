namespace PeftServer.Engine.Tokenizers;

/// <summary>A tokenizer's files are missing, broken or ask for something unknown. The message names the file and the remedy.</summary>
public sealed class TokenizerException : Exception
{
    public TokenizerException(string message)
        : base(message)
    {
    }

    public TokenizerException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
