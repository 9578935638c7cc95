namespace PeftServer.Inference.Writing;

/// <summary>Tokens that a request cost.</summary>
internal sealed record Usage(int PromptTokens, int CompletionTokens)
{
    public int TotalTokens => PromptTokens + CompletionTokens;
}
