// Opens a page in headless Chromium as people meet it, and tells as JSON what was found.
//
//   NODE_PATH=.../node_modules node check.cjs PAGE [SCREENSHOT_PREFIX]
//
// Light and dark, wide and on a phone: errors on the console, requests to anywhere, what axe-core finds, whether anything is wider than
// the screen, and what the keyboard reaches.
const { chromium } = require('playwright-core');
const { pathToFileURL } = require('node:url');
const axe = require('axe-core').source;

const [page_file, screenshots] = process.argv.slice(2);
const url = pathToFileURL(page_file).href;

(async () => {
  const browser = await chromium.launch({
    executablePath: process.env.TIDEGATE_CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu'],
  });
  const views = [];
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
      const context = await browser.newContext({ colorScheme, viewport: { width, height: 844 }, javaScriptEnabled: true });
      const page = await context.newPage();
      const requests = [], problems = [];
      page.on('request', (request) => { if (request.url() !== url) requests.push(request.url()); });
      page.on('console', (message) => problems.push(`${message.type()}: ${message.text()}`));
      page.on('pageerror', (error) => problems.push(String(error)));
      await page.goto(url);
      const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      // As it opens, in screens.
      const screens = await page.evaluate(() => document.documentElement.scrollHeight / window.innerHeight);
      if (screenshots) await page.screenshot({ path: `${screenshots}-${colorScheme}-${width}.png`, fullPage: true });
      const scripts = await page.evaluate(() => document.scripts.length);
      // The first stop of the keyboard, and a fold opened by it.
      await page.keyboard.press('Tab');
      const first = await page.evaluate(() => document.activeElement.textContent);
      const opened = await page.evaluate(() => document.querySelector('details:not([open]) > summary')?.focus() ?? null)
        .then(() => page.keyboard.press('Enter'))
        .then(() => page.evaluate(() => document.activeElement.parentElement.open ?? null));
      await page.evaluate(() => document.querySelectorAll('details').forEach((fold) => { fold.open = true; }));
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      const found = violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.slice(0, 3).map((node) => node.html) }));
      const text = await page.evaluate(() => document.body.innerText);
      const charts = await page.evaluate(() => [...document.querySelectorAll('svg[role=img]')].map((svg) => {
        const { width, height } = svg.getBoundingClientRect();
        return { name: svg.querySelector('title')?.textContent, width, height };
      }));
      const unfolded = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (screenshots) await page.screenshot({ path: `${screenshots}-${colorScheme}-${width}-unfolded.png`, fullPage: true });
      views.push({ colorScheme, width, background, overflow: Math.max(overflow, unfolded), screens, scripts, first, opened, requests, problems, found, text, charts });
      await context.close();
    }
  }
  await browser.close();
  console.log(JSON.stringify(views));
})().catch((error) => { console.error(error); process.exit(1); });
